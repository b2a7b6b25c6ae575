"""Looks at an installation and tells what is wrong and what mends it.

command: on the command line. examine: all that is looked at. software: Python and packages. model_files: the host's
folders and what lies in them. finding: one result, and the report of all.

Works where the installation does not: nothing but the standard library is imported before it is needed, and a package
that fails to import becomes a finding.
"""
