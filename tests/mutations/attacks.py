"""How every attack is broken on purpose."""

# file below src/clearsight -> [(old text, new text)]; the tests that name the method are run
METHODS = {
    "attacks/fgsm.py": [
        ("x - eps * g.sign()", "x + eps * g.sign()"),
        ("x - eps * g.sign()", "x - eps * g"),
        ("x - eps * g.sign()", "x - 1.1 * eps * g.sign()"),
        (").clamp(0, 1)", ")"),
    ],
    "attacks/pgd.py": [
        ("z.detach() - size * g.sign()", "z.detach() + size * g.sign()"),
        ("2.5 * eps", "0.5 * eps"),
        ("(loss.detach() < best_loss[rows])", "(loss.detach() < torch.inf)"),
        ("(met == best_met[rows]) & ", ""),
        ("(met & ~best_met[rows]) | ", ""),
        ("* draws.uniform(z, rows)", "* 0.5"),
        ("* draws.uniform(z, rows)", "* torch.rand_like(z)"),
        ("* draws.uniform(z, rows)", "* draws.uniform(z, rows) / 2"),
        ("range(steps + 1)", "range(steps)"),
        ("rows, z = rows[~met], z[~met]", "pass"),
        ("(x - eps).clamp(min=0)", "(x - eps)"),
        ("range(restarts)", "range(1)"),
        ("rows = (~best_met).nonzero()[:, 0] if early_stop else torch", "rows = torch"),
    ],
}
