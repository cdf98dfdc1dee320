//! What can be read off the words by rule: dates and times, amounts, numbers to call, addresses, who is to do what by when.
