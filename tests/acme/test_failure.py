"""Why an order has failed, in words."""

from acme import errors, messages

from lbproxy.acme.failure import failure_of

PROBLEM = messages.Error(typ="urn:ietf:params:acme:error:rateLimited", detail="too many certificates")


def test_the_authority_s_own_reason_is_told() -> None:
    failure = failure_of(PROBLEM)
    assert (failure.why, failure.is_refused) == ("the authority refuses: rateLimited: too many certificates", True)
    assert failure_of(errors.IssuanceError(PROBLEM)).why == failure.why


def test_a_nonce_that_was_used_up_is_no_refusal() -> None:
    assert not failure_of(messages.Error(typ="urn:ietf:params:acme:error:badNonce", detail="used")).is_refused


def test_each_name_that_could_not_be_validated_is_told() -> None:
    def failed(name: str) -> messages.AuthorizationResource:
        identifier = messages.Identifier(typ=messages.IDENTIFIER_FQDN, value=name)
        challenge = messages.ChallengeBody(chall=None, uri="x", error=PROBLEM)
        return messages.AuthorizationResource(
            body=messages.Authorization(identifier=identifier, challenges=(challenge,)), uri="x"
        )

    failure = failure_of(errors.ValidationError([failed(f"{letter}.example") for letter in "abcde"]))
    assert failure.is_refused
    assert "a.example: rateLimited: too many certificates; b.example" in failure.why
    assert failure.why.endswith("(and 2 more)")


def test_what_an_authority_did_not_say_is_no_refusal() -> None:
    error = PermissionError(13, "Permission denied", "/state/acme/a.pem")
    assert failure_of(error).why == "Permission denied: /state/acme/a.pem"
    assert not failure_of(error).is_refused
    assert failure_of(ValueError("not JSON")).why == "the authority's answer makes no sense: not JSON"
    assert failure_of(errors.TimeoutError()).why == "the authority did not finish in time"
