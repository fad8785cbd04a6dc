"""A paper's table as a sweep with expected values.

table.py   what a table is: rows that are trained or computed, columns that are measured, the
           published values, and claims about their order
"""
