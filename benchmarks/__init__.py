"""What Outbox costs, and how it compares: `make bench`. Nothing of it is imported by outbox."""
