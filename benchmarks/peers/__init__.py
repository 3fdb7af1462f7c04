"""The peers, each a program of its own: `prepare COUNT` fills its queue in the current folder, `drain` empties it."""
