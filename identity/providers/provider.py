"""What we ask of a provider that knows people: who is this code, and which phone is theirs."""

from typing import Literal, NamedTuple, Protocol

from identity.kernel import Refusal, Said

ProviderName = Literal["wechat", "alipay"]


class ProviderPerson(NamedTuple):
    """A person as one provider's app knows them."""

    provider: ProviderName
    app_id: str
    open_id: str
    user_id: str | None


class SignInCodeRefused(Refusal):
    """The provider does not accept the code: used up, expired or made up."""

    code, status = "sign-in-code-refused", 401
    title = Said("登录凭证无效", "The sign-in code was not accepted")
    next_step = Said("请返回小程序重新登录。", "Go back to the mini-program and sign in again.")


class ProviderUnavailable(Refusal):
    """The provider did not answer properly in time."""

    code, status, retryable = "provider-unavailable", 503, True
    title = Said("微信或支付宝暂时没有响应", "The provider did not answer")
    next_step = Said("请稍后重试。", "Try again in a moment.")


class SignInProvider(Protocol):
    """A provider through which people sign in."""

    async def person_of(self, code: str) -> ProviderPerson:
        """Return who the one-time code of the mini-program stands for.

        Raises:
            SignInCodeRefused: the provider says no.
            ProviderUnavailable: the provider says nothing that can be used.
        """

    async def phone_of(self, code: str) -> str:
        """Return the phone number behind the mini-program's phone code or payload, digits only.

        Raises:
            SignInCodeRefused: the provider says no, or the payload is not theirs.
            ProviderUnavailable: the provider says nothing that can be used.
        """
