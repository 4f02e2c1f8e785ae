"""How the copies of networks whose weights are drawn anew are broken on purpose."""

# what the methods stand on: (file, old text, new text, pytest's -k)
CORE = [
    ("copying.py", "return copy.deepcopy(net, made)", "return copy.deepcopy(net)", "hook_computed"),
    ("copying.py", "(TypeError, RuntimeError, AttributeError, NotImplementedError)", "ZeroDivisionError", "be_copied"),
    ("copying.py", "            _of_its_own_class(m)\n", "", "plain_copy"),
    ("copying.py", "weight.data.contiguous()", "weight.data", "plain_twin and orthogonal"),
    ("copying.py", "            p.requires_grad_()  #", "            pass  #", "plain_copy or plain_twin"),
    ("copying.py", "copied(net).eval()", "copied(net)", "plain_copy and spectral"),
    ("copying.py", "isinstance(hook, WeightNorm)", "False", "plain_copy or linear_network_under"),
    ("copying.py", "isinstance(hook, SpectralNorm)", "False", "plain_copy or plain_twin"),
    ("copying.py", "isinstance(hook, prune.BasePruningMethod)", "False", "plain_copy or plain_twin"),
    ("randomising.py", 'if func.namespace == "quantized"', "if False", "quantised"),
    (
        "randomising.py",
        "self.uses.last[at] = self.number",
        "self.uses.last.setdefault(at, self.number)",
        "output_to_the_in",
    ),
    ("randomising.py", "if None not in sources:  #", "if False:  #", "uses_of_a_pass"),
    ("randomising.py", "(-found.last.get(name, -1), -place[name])", "-found.last.get(name, -1)", "output_to_the_input"),
    ("randomising.py", "or name in acting]", "]", "output_to_the_input or uses"),
    ("randomising.py", "for at, b in self.before.buffers if at == name", "for at, b in []", "output_to_the_input"),
    ("randomising.py", "if name in self.drawn and any(", "if False and any(", "stay_the_same"),
    ("randomising.py", "if self.changed and bool(still.any())", "if False", "stay_the_same or one_picture"),
    ("randomising.py", "bool(still.any()):", "bool(still.all()):", "one_picture"),
    ("randomising.py", "        return not bool(still.any())", "        return True", "nobody_trained"),
    ("randomising.py", "(p.dim() > 1 and torch.equal(p, was[name]))", "False", "made_up_for"),
    (
        "randomising.py",
        "    except TypeError:\n        return False",
        "    except TypeError:\n        return True",
        "made_up",
    ),
    ("randomising.py", "copied(start.model.net)", "start.model.net", "plain_twin or by_hand"),
    (
        "testimony.py",
        "    except Refused as refused:\n        return found,",
        "    except OSError as refused:\n        return found,",
        "quantised",
    ),
    ("checks/sanity.py", "not taken.check(pixels, logits) and", "False and", "sanity_says_of_a_normed"),
]
