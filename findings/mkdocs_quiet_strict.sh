#!/usr/bin/env bash
# mkdocs 1.6.1: `build --strict --quiet` succeeds where `build --strict` aborts, so that a quiet check of the documentation
# in continuous integration checks nothing.
#
# Why it matters: --strict is what makes broken links fail a build, and --quiet is what one adds so that only failures show.
# --quiet raises the level of the logger itself, so that warnings never reach the handler with which --strict counts them.
# It holds for `strict: true` in mkdocs.yml too.  Reported as issue 4126 of mkdocs in May 2026, and open.
# Expected: --quiet silences the output and leaves the exit status as it is.
set -euo pipefail
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT
python3 -m venv "$d/venv"
"$d/venv/bin/pip" install -q "mkdocs==1.6.1"
mkdir -p "$d/site/docs"
printf 'site_name: Two pages\n' > "$d/site/mkdocs.yml"
printf '# Start\n\nSee [the other page](other.md).\n' > "$d/site/docs/index.md"
cd "$d/site"
export NO_MKDOCS_2_WARNING=1
status() { "$d/venv/bin/mkdocs" build "$@" --site-dir "$d/out" >/dev/null 2>&1 && echo 0 || echo "$?"; }
loud=$(status --strict)
quiet=$(status --strict --quiet)
printf 'strict: true\n' >> mkdocs.yml
configured=$(status)
configured_quiet=$(status --quiet)
echo "mkdocs 1.6.1, a link to a page that is not there: --strict ends with $loud, --strict --quiet with $quiet;" \
  "strict: true ends with $configured, with --quiet $configured_quiet"
[ "$loud $quiet $configured $configured_quiet" = "1 0 1 0" ]
echo "as found"
