"""Free TCP ports for tests: outside the kernel's range for outgoing connections."""

from proxy.demo.ports import free_port

__all__ = ["free_port"]
