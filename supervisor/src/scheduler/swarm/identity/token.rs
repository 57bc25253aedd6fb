//! A join token: `SWMTKN-1-DIGEST-SECRET`, the root certificate's sha256 as a number in base 36, and a shared secret.

use anyhow::{Context as _, bail, ensure};

/// Digits of the digest.
const DIGEST: usize = 50;
/// Digits of the secret.
const SECRET: usize = 25;

/// A token that is well-formed. Its Debug shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// As it was given: managers want it whole.
    pub text: String,
    /// What the root certificate must hash to.
    pub digest: [u8; 32],
}

impl std::fmt::Debug for Token {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Token")
    }
}

impl Token {
    /// Reads a token.
    ///
    /// # Errors
    ///
    /// What is wrong with it; never the token itself.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let text = text.trim();
        let parts: Vec<&str> = text.split('-').collect();
        let advice = "`docker swarm join-token worker` prints it on a manager";
        let (digest, secret) = match parts.as_slice() {
            ["SWMTKN", "1", digest, secret] | ["SWMTKN", "2", "0", digest, secret] => (digest, secret),
            ["SWMTKN", "2", "1", ..] => {
                bail!("the join token is of a swarm that allows FIPS 140 nodes alone, which flintd is not")
            }
            ["SWMTKN", ..] => bail!("the join token is not of the form SWMTKN-1-DIGEST-SECRET: {advice}"),
            _ => bail!("the join token does not begin with SWMTKN-: {advice}"),
        };
        ensure!(digest.len() == DIGEST, "the join token's digest has {} letters, not {DIGEST}: {advice}", digest.len());
        ensure!(secret.len() == SECRET, "the join token's secret has {} letters, not {SECRET}: {advice}", secret.len());
        let digest = from_base36(digest).with_context(|| format!("the join token's digest is none: {advice}"))?;
        Ok(Self { text: text.to_owned(), digest })
    }
}

fn from_base36(text: &str) -> anyhow::Result<[u8; 32]> {
    let mut number = [0_u8; 32];
    for letter in text.chars() {
        let mut carry = letter.to_digit(36).with_context(|| format!("{letter:?} is no digit of base 36"))?;
        for byte in number.iter_mut().rev() {
            let sum = u32::from(*byte) * 36 + carry;
            *byte = (sum & 0xff) as u8;
            carry = sum >> 8;
        }
        ensure!(carry == 0, "it is larger than a sha256");
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET_PART: &str = "0123456789abcdefghijklmno";

    fn token(digest: &str) -> String {
        format!("SWMTKN-1-{digest}-{SECRET_PART}")
    }

    #[test]
    fn a_digest_is_a_number_in_base_36() {
        let one = format!("{}1", "0".repeat(49));
        let parsed = Token::parse(&token(&one)).unwrap();
        assert_eq!(parsed.digest[31], 1);
        assert!(parsed.digest[..31].iter().all(|byte| *byte == 0));
        let hundred = format!("{}100", "0".repeat(47));
        let parsed = Token::parse(&format!(" {}\n", token(&hundred))).unwrap();
        assert_eq!(parsed.digest[30..], [5, 16], "36 * 36 = 1296");
        // The largest sha256 is 6dp5qcb22im238nr3wvp0ic7q99w035jmy2iw7i6n43d37jtof in base 36.
        let all = "6dp5qcb22im238nr3wvp0ic7q99w035jmy2iw7i6n43d37jtof";
        assert_eq!(Token::parse(&token(all)).unwrap().digest, [0xff; 32]);
        let more = "6dp5qcb22im238nr3wvp0ic7q99w035jmy2iw7i6n43d37jtog";
        assert!(Token::parse(&token(more)).is_err());
    }

    #[test]
    fn what_is_wrong_is_told_without_the_token() {
        let zeros = "0".repeat(50);
        for (text, told) in [
            ("", "does not begin"),
            ("SWMTKN-1-abc", "not of the form"),
            ("SWMTKN-3-a-b", "not of the form"),
            (&format!("SWMTKN-2-1-{zeros}-{SECRET_PART}"), "FIPS"),
            (&format!("SWMTKN-1-{zeros}0-{SECRET_PART}"), "51 letters"),
            (&format!("SWMTKN-1-{zeros}-{SECRET_PART}0"), "26 letters"),
            (&token(&"?".repeat(50)), "digest is none"),
        ] {
            let error = format!("{:#}", Token::parse(text).unwrap_err());
            assert!(error.contains(told), "{text}: {error}");
            assert!(!error.contains(SECRET_PART), "{error}");
        }
        assert!(Token::parse(&format!("SWMTKN-2-0-{zeros}-{SECRET_PART}")).is_ok());
        assert!(!format!("{:?}", Token::parse(&token(&zeros)).unwrap()).contains(SECRET_PART));
    }
}
