"""How every corruption, their runner, their check and the spatial attack are broken on purpose."""

# file below src/clearsight -> [(old text, new text)]; the tests that name the method are run
METHODS = {
    "corruptions/gaussian_noise.py": [
        ("x + sigma * rng.normal(x)", "x + 1.2 * sigma * rng.normal(x)"),
        ("rng.normal(x)", "(rng.normal(x) + 0.2)"),
        ("0.06, 0.08, 0.09", "0.06, 0.09, 0.09"),
    ],
    "corruptions/shot_noise.py": [
        ("term * mean / k", "term * mean / (k + 1)"),
        ("chance >= total", "chance > 0.9 * total"),
        ("25.0, 12.0", "25.0, 16.0"),
        (" & (k <= most)", ""),
    ],
    "corruptions/impulse_noise.py": [
        ("chance < share / 2", "chance < share"),
        ("torch.where(chance >= 1 - share / 2, 1.0, x)", "x"),
        ("rng.uniform(x)", "rng.uniform(x[:, :1]).expand_as(x)"),
    ],
    "corruptions/defocus_blur.py": [
        ("<= radius * radius", "<= radius"),
        ("disk(radius * grown, edge)", "disk(radius, edge)"),
        ("even = spread @ flat @ spread.T", "even = flat"),
    ],
    "corruptions/glass_blur.py": [
        ("order[i], order[j] = order[j], order[i]", "order[i] = order[j]"),
        ("return smoothed(mixed, sigma).clamp(0, 1)", "return mixed.clamp(0, 1)"),
        ("c[:rounds]", "c[:1]"),
        (".flatten().flip(0)", ".flatten()"),
    ],
    "corruptions/motion_blur.py": [
        ("[:, 0] - 45", "[:, 0]"),
        ("trail(radius * grown, sigma * grown)", "trail(radius * grown, 2 * sigma * grown)"),
        ("(len(x), 1,", "(1, 1,"),
    ],
    "corruptions/zoom_blur.py": [
        ("1 + k * step", "1 + step"),
        ("total = x.clone()", "total = torch.zeros_like(x)"),
        ("range(views)", "range(views - 1)"),
    ],
    "corruptions/snow.py": [
        ("1.5 * grey + 0.5", "1.5 * grey"),
        ("flakes.rot90(2, (2, 3))", "flakes"),
        ("flakes < least", "flakes < 0"),
        ("angle = 45 + 90", "angle = 90"),
        ("max(1.0, size * grown)", "1.0"),
    ],
    "corruptions/frost.py": [
        ("kept * x + much", "x + much"),
        ("(math.pi / 3) + turned", "(math.pi / 3)"),
        ("along - beside / math.sqrt(3)", "along"),
        ("+ 0.6 * middle", "- 0.6 * middle"),
        ("0.86, 0.95, 1.0", "1.0, 0.95, 1.0"),
    ],
    "corruptions/fog.py": [
        ("* white / (white + much)", ""),
        ("white = x.amax((1, 2, 3), keepdim=True)", "white = x.amax()"),
        ("(2.5, 1.7)", "(2.5, 2.7)"),
    ],
    "corruptions/brightness.py": [
        ("x * (raised / value", "x + 0 * (raised / value"),
        ("torch.where(value > 0, ", "torch.where(value >= 0, "),
        ("0.2, 0.3, 0.4", "0.2, 0.35, 0.4"),
    ],
    "corruptions/contrast.py": [
        ("x.mean((2, 3), keepdim=True)", "x.mean((1, 2, 3), keepdim=True)"),
        ("* left + mean", "* left"),
        ("0.3, 0.15", "0.3, 0.2"),
    ],
    "corruptions/elastic_transform.py": [
        ("truncate=3", "truncate=1"),
        ("244 * corners)", "224 * corners)"),
        ("rows, columns = rows + down, columns + right", "rows, columns = rows + right, columns + down"),
        ("np.linalg.solve(moved, corners.astype(np.float64))", "np.linalg.solve(moved, moved[:, :2])"),
    ],
    "corruptions/pixelate.py": [
        ("int(wide * share)", "int(high * share) + 1"),
        ("Image.Resampling.BOX", "Image.Resampling.BILINEAR"),
        ("0.4, 0.3, 0.25", "0.4, 0.3, 0.2"),
    ],
    "corruptions/jpeg_compression.py": [
        ("through_jpeg(z, quality)", "through_jpeg(z, quality + 1)"),
        ("58, 50, 40", "58, 50, 45"),
    ],
    "corruptions/rotation.py": [
        ("1 if left else -1", "1"),
        ("math.radians(graded", "(graded"),
        ("15.0, 22.0", "15.0, 25.0"),
        ("(x.shape[2] - 1) / 2", "x.shape[2] / 2"),
    ],
    "corruptions/translation.py": [
        ("2 * math.pi *", "math.pi *"),
        ("max(math.sqrt(2) / 2, ", "max(0.0, "),
        ("min(high, wide)", "max(high, wide)"),
    ],
    "corruptions/orientation.py": [
        ("1 if chance < 0.5 else -1", "1"),
        ("rot90(1 if", "rot90(2 if"),
        ("if high != wide:", "if high < 0:"),
    ],
    "corruptions/colour_profile.py": [
        ("(gain[:, None] * cones)", "cones"),
        ("256 / 563", "1 / 2.4"),
        ("4.5 * light", "4 * light"),
        ("(0.265, 0.690)", "(0.30, 0.60)"),
        ("light < 1 / 512", "light < 0"),
    ],
    "corruptions/bit_depth.py": [
        ("stored / 65535", "stored / top"),
        ("12, 10)", "12, 11)"),
        ("(stored / 65535 * 255).round()", "(stored / 65535 * 255)"),
    ],
    "corruptions/thumbnail.py": [
        ("_QUALITY = 75", "_QUALITY = 60"),
        ("Image.Resampling.BICUBIC", "Image.Resampling.BOX"),
        ("0.25, 0.18", "0.25, 0.2"),
        ("through_jpeg(resized", "(lambda z, _: z)(resized"),
    ],
    "attacks/spatial.py": [
        ("sin / long, -sin * long", "sin, -sin"),
        ("origin = -(back @ (2 * share)[:, :, None])", "origin = -(2 * share)[:, :, None]"),
        ("cos, sin / long, -sin * long, cos", "cos, -sin / long, sin * long, cos"),
        ("rows = (~best.met).nonzero()[:, 0]", "rows = torch.arange(len(x))"),
        ("[None] * tries", "[None]"),
        ('project(moved(x[rows], rotation * share[:, 0], translation * share[:, 1:]), x[rows], eps, "linf")',
         "moved(x[rows], rotation * share[:, 0], translation * share[:, 1:])"),
        ("rng.uniform(like, rows)", "torch.rand_like(like)"),
        ("product(turns, steps, steps)", "product(turns, steps, [0.0])"),
        ('padding_mode="zeros"', 'padding_mode="border"'),
    ],
    "checks/corruptions.py": [
        ("found.clean += case.right[rows].tolist()", "found.clean += [True] * len(rows)"),
        ("judge(interval, floor=floor)", "judge(interval, floor=0.5)"),
        ("float(1 - left.mean() / was.mean())", "float(was.mean() - left.mean())"),
        ("1 - left[k].mean() / was[k].mean()", "1 - left[k].mean()"),
        ("return wilson(round(sum(each)), len(each))", "return bootstrap(each, seed)"),
        ("if not case.right[i] or right[k]:", "if right[k]:"),
        ("key < found.turned[i].key", "key > found.turned[i].key"),
        ('if not claim or claim in m.claims', "if m"),
        ("seed=case.seed)", "seed=0)"),
        ("sorted(names, key=lambda name: (_mean(found, calls, name), name))", "sorted(names)"),
    ],
}  # fmt: skip

# file below src/clearsight, old text, new text, what pytest's -k selects
CORE = [
    ("corruptions/_common.py", "max(1.0, side / SMALL)", "side / SMALL", "grow"),
    ("corruptions/_common.py", "side / LARGE\n", "1.0\n", "grow"),
    ("corruptions/_common.py", "size / decay**2", "size / decay", "diamond"),
    ("corruptions/_common.py", "((0, half, 1, 2), (half, 0, 2, 1))", "((0, half, 1, 2), (half, 0, 1, 2))", "diamond"),
    ("corruptions/_common.py", "if severity not in SEVERITIES:", "if severity > 5:", "severities"),
    ("corruptions/_common.py", 'mode="mirror"', 'mode="nearest"', "rotation or elastic"),
    ("corruptions/_common.py", "reach - round(k * down), reach - round(k * along)",
     "reach - round(k * along), reach - round(k * down)", "motion"),
    ("corruptions/_common.py", "2 * math.ceil(radius) + 1", "math.ceil(radius) + 1", "motion"),
    ("corruptions/_common.py", "int(truncate * sigma + 0.5)", "int(2 * sigma + 0.5)", "smooth"),
    ("runner/corrupt.py", "what=call.method.name", "what=str(call)", "impulse"),
    ("runner/corrupt.py", "if not (low >= 0 and high <= 1):", "if low < 0 or high > 1:", "refused"),
    ("runner/corrupt.py", "if not bool(found.isfinite().all()):", "if False:", "ones_own"),
    ("runner/corrupt.py", "found.shape != x.shape", "False", "ones_own"),
    ("runner/corrupt.py", ".float().clamp(0, 1)", ".float()", "ones_own"),
    ("runner/corrupt.py", "rng.seeded(seed, part", "rng.seeded(seed, pictures[:len(part)]", "a_batch_is"),
]  # fmt: skip
