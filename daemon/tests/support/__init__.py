"""What tests share: a daemon in a process of its own, a made-up USB bus."""
