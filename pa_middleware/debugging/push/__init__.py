"""Traces and scores for the backends where people look at them: any OTLP, Phoenix, Langfuse, LangSmith, MLflow."""

try:
    from pa_middleware.debugging.push.errors import PushError
    from pa_middleware.debugging.push.pushing import BACKENDS, BackendName, Pushed, push
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"a push needs {error.name}; install what it needs with: pip install 'pa-middleware[push]'", name=error.name
    ) from error

__all__ = ["BACKENDS", "BackendName", "PushError", "Pushed", "push"]
