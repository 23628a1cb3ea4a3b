"""The HTTP interfaces of other servers, so that their clients work here too: each module is one of them."""
