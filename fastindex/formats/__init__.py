"""Parsers: untrusted bytes and names → values.

The rules of this package:

- Every parser that an uploader can reach lives here, and each one is a fuzz target
  (``tests/fuzz/targets.py``).
- A parser bounds the time, the memory and the length of what it returns.
- Bytes that do not parse raise ``FormatError`` or one of ``simplestreams.UNDECODABLE``, or
  become a finding. The message says what is wrong with them.
- Nothing here writes. Files are opened by ``reading`` only.
"""
