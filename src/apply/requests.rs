//! What a person asks of the process that runs a stream, kept in the target so that it may be asked from anywhere.

use tokio_postgres::Client;

use crate::apply::checkpoint::{StateError, StreamKey};

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Rest, and keep the stream; taken back, it goes on.
    Pause,
    /// End in order.
    Stop,
}

impl Request {
    /// As the table writes it.
    fn as_str(self) -> &'static str {
        match self {
            Request::Pause => "pause",
            Request::Stop => "stop",
        }
    }
}

/// What is asked of the stream now.
pub async fn read_request(client: &Client, key: &StreamKey) -> Result<Option<Request>, StateError> {
    let sql = "SELECT request FROM repcloud.durability WHERE source = $1 AND target = $2";
    let row = client.query_opt(sql, &[&key.source, &key.target]).await?;
    let word: Option<String> = row.map(|row| row.try_get(0)).transpose()?.flatten();
    match word.as_deref() {
        None => Ok(None),
        Some("pause") => Ok(Some(Request::Pause)),
        Some("stop") => Ok(Some(Request::Stop)),
        Some(other) => Err(StateError::Damaged(format!("request \"{other}\" in repcloud.durability"))),
    }
}

/// Asks, or takes back what was asked (`None`). False: the stream has not begun.
pub async fn write_request(
    client: &Client,
    key: &StreamKey,
    request: Option<Request>,
) -> Result<bool, StateError> {
    let sql = "UPDATE repcloud.durability SET request = $3 WHERE source = $1 AND target = $2";
    let word = request.map(Request::as_str);
    Ok(client.execute(sql, &[&key.source, &key.target, &word]).await? == 1)
}
