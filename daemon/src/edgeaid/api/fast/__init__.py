"""The fast socket: SOCK_SEQPACKET and sealed shared memory, for clients on the same device."""
