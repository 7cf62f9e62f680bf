"""Identity: who a user is and how they prove it.

Owns accounts, passwords, profiles, sessions and the deployment's first operator; makes the access tokens that
everybody else checks. No other service sees a password, a refresh token or an e-mail address.
"""
