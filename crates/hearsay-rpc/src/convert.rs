pub struct Malformed;
