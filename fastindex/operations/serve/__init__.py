"""``serve``: a web server for a LAN and for trying, which serves what is published, nothing else.

What is asked for and what is answered are decided by pure functions (``requests.py``,
``answers.py``); ``offer.py`` knows what may be served; ``server.py`` is all that knows the library.
"""
