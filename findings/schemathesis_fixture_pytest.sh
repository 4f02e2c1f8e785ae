#!/usr/bin/env bash
# schemathesis 4.32.5 beside pytest 9.2.0: a test made by `schemathesis.pytest.from_fixture` ends with AttributeError
# ('Function' object has no attribute '_nodeid') before any request is made; beside pytest 8.4.2 it passes.
#
# Why it matters: a schema that only a running server has can be tested in pytest in this way alone, and the message names
# neither package.  schemathesis reads a private attribute of pytest's nodes, which pytest 9.2 has not.
# Expected: its metadata ask for pytest from 8.4 to below 10.
set -euo pipefail
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT
python3 -m venv "$d/venv"
"$d/venv/bin/pip" install -q "schemathesis==4.32.5" "pytest==9.2.0"
cat > "$d/test_api.py" <<'TEST'
import pytest
import schemathesis

@pytest.fixture
def api():
    paths = {"/x": {"get": {"responses": {"200": {"description": "yes"}}}}}
    return schemathesis.openapi.from_dict({"openapi": "3.1.0", "info": {"title": "x", "version": "1"}, "paths": paths})

schema = schemathesis.pytest.from_fixture("api")

@schema.parametrize()
def test_api(case):
    assert case.path == "/x"
TEST
cd "$d"
run() { "$d/venv/bin/python" -m pytest -q -p no:cacheprovider test_api.py 2>&1 || true; }
new=$(run)
"$d/venv/bin/pip" install -q "pytest==8.4.2"
old=$(run)
grep -o "AttributeError: .*" <<< "$new" | head -1 | sed 's/^/beside pytest 9.2.0: /'
tail -1 <<< "$old" | sed 's/^/beside pytest 8.4.2: /'
grep -q "object has no attribute '_nodeid'" <<< "$new"
grep -q "1 passed" <<< "$old"
echo "as found"
