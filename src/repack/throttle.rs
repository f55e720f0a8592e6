use super::error::RepackError;
use super::options::ThrottleOptions;
use crate::pg::Session;
#[derive(Debug)]
pub struct Throttle(ThrottleOptions);
impl Throttle {
    pub fn new(o: ThrottleOptions) -> Self {
        Throttle(o)
    }
    pub async fn reason(&mut self, _s: &Session) -> Result<Option<String>, RepackError> {
        Ok(None)
    }
}
