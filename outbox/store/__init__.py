"""All SQL, and nothing but SQL: one statement a function, the guard in its name.

Rooms import the module of the verbs they may use; import-linter holds who may use which. Nothing is re-exported here,
so that those contracts see every import.
"""
