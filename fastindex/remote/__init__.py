"""HTTP: documents and files from servers that are slow, broken or hostile.

Knows nothing of catalogues, trees or digests. The rules of this package:

- Everything that a server sends is bounded: headers, redirects, documents, files, waiting.
- Nothing that a server sends reaches a message as it is: control characters are escaped.
- Messages show no credentials and no query strings.
- Whether to retry, restart or give up is decided by pure functions (``answers``, ``retrying``,
  ``pieces``); ``connections`` and ``sessions`` talk, ``board`` and ``download`` do the work.

``http.client`` of the standard library is the client. urllib3, which is built on it, would add
what is not needed here (pools, decoding), 0.1 s to the start of each command, and a copy of each
byte; and no bound on the time that headers take.
"""
