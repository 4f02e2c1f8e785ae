"""Can I trust this image classifier, and why does it decide so?

The public names are listed in ``__init__.pyi``.  Each is loaded when it is first used, so that ``import clearsight``
costs nothing.  No module here may have the name of one of them: importing it would put it in the function's place.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
