"""The reference that travels with the model."""

from otel_mlmon.profile.document import Plan, Profile, ProfileError, Reference, Variable

__all__ = ["Plan", "Profile", "ProfileError", "Reference", "Variable"]
