from registry.errors import UserError
from registry.hooks import hookimpl
from registry.values import AttentionSite, HeadGroup
