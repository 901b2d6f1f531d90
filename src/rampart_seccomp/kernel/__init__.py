"""What the kernel is asked and told: the system call table, the filter made from it, and what is there."""
