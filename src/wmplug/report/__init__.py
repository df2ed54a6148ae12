"""Documents for people: certificates and dossiers, each in one self-contained file."""
