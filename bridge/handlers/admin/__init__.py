"""Administration: what operators do on a node.

These operations are kept apart from the users' (`bridge.administration`). The handlers do not check the
caller: an API that offers them must admit administrators only, as `bridge.grpc_api.guard` does.
"""
