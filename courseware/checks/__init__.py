"""What check cells call: agreement with a reference, invariants and refusals, said in words that name the cause.

Each function returns if all is well and raises AssertionError otherwise; `caches` holds two small classes that checks
use. A chapter imports from the module it needs, because only `refusals` and `sequences` work without torch:

    from courseware.checks.agreement import agree, gradients, roughen
    from courseware.checks.caches import LayerCache, ModelCache
    from courseware.checks.causality import sees_only_the_past
    from courseware.checks.refusals import refused
    from courseware.checks.sequences import same_sequence
"""
