"""What would make a file, if a shell or another program ran it, or took it for an option."""

from __future__ import annotations

__all__ = ["PAYLOADS"]

# {m} is the path of the marker; E1 and E3 of the list of checks.
PAYLOADS = [
    ";touch {m}",
    "; touch {m} #",
    "$(touch {m})",
    "`touch {m}`",
    "x\ntouch {m}\n",
    "| touch {m}",
    "& touch {m} &",
    "&& touch {m}",
    "'; touch {m}; '",
    '"; touch {m}; "',
    "'\"'\"'; touch {m}; echo '",
    "\\'; touch {m}; \\'",
    "${{IFS}}touch${{IFS}}{m}",
    "a[$(touch {m})]",
    ">{m}",
    "-oProxyCommand=touch {m}",
    "--upload-pack=touch {m}",
    "--index-url=http://127.0.0.1:9/",
    "ext::sh -c touch% {m}",
    "__import__('os').system('touch {m}')",
    "{{{{7*7}}}}",
    "${{7*7}}",
    "{{% raw %}}",
    "{{0.__class__}}",
    "%(touch {m})s",
    "~root",
    "*",
    "",
]
