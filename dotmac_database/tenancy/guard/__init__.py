"""Guarded sessions: each statement is confined to the session's tenant, or refused before it is sent.

`compiler` adds the tenant's condition to every table that a statement uses, and `fragments` and `text` find the parts
of a statement that can't be analysed. `orm_statements`, `inserts` and `unit_of_work` check what a session writes.
`connection` collects the facts about each statement that is sent, and `verdicts` judges them.
"""
