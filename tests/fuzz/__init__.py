"""Generated inputs for everything that reads untrusted text or bytes.

One file per target. Each has `check`, which makes one input out of a `Source`, reads it with the
product and asserts what must hold for any input; the suite tries a few hundred inputs that are
always the same, `make fuzz` hundreds of thousands that are new each time (`__main__.py`).
"""
