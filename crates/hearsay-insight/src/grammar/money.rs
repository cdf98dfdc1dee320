//! Amounts of money.

use std::sync::LazyLock;

use super::Value;
use super::day::Read;
use super::lex::{Kind, Tokens};
use super::names::Trie;
use super::number::{self, Decimal};

/// A currency or its hundredth.
#[derive(Debug, Clone, Copy)]
struct Unit {
    name: &'static str,
    code: Option<&'static str>,
    /// A hundredth of something: nothing smaller follows it.
    minor: bool,
    /// A word that always means money.
    plain: bool,
}

/// Name, ISO code or "", what it is called. An asterisk marks words that mean other things too when alone.
const UNITS: &[(&str, &str, &[&str])] = &[
    ("Dollar", "", &["$", "dollar", "dollars", "buck*", "bucks*"]),
    ("Cent", "", &["¢", "cent*", "cents*"]),
    ("Pound", "", &["£", "pound*", "pounds*", "quid*"]),
    ("Penny", "", &["penny*", "pennies*"]),
    ("Pence", "", &["pence*", "p*"]),
    ("Euro", "EUR", &["€", "euro", "euros", "eur"]),
    ("Franc", "", &["franc*", "francs*"]),
    ("Mark", "", &["mark*", "marks*"]),
    ("Krona", "", &["krona*", "kronor*"]),
    ("Krone", "", &["krone*", "kroner*"]),
    ("Rupee", "", &["rupee*", "rupees*", "rs*"]),
    ("Peso", "", &["peso*", "pesos*"]),
    ("Lira", "", &["lira*", "liras*", "lire*"]),
    ("Dinar", "", &["dinar*", "dinars*"]),
    ("Dirham", "", &["dirham*", "dirhams*"]),
    ("Riyal", "", &["riyal*", "riyals*", "rial*", "rials*"]),
    ("Shilling", "", &["shilling*", "shillings*", "schilling*", "schillings*"]),
    ("Crown", "", &["crown*", "crowns*"]),
    ("Sen", "", &["sen*"]),
    ("Satoshi", "", &["satoshi*", "satoshis*"]),
    ("Bitcoin", "", &["₿", "bitcoin*", "bitcoins*", "btc*"]),
    (
        "United States dollar",
        "USD",
        &[
            "usd",
            "usd$",
            "us$",
            "u.s.$",
            "u.s$",
            "u.s. $",
            "us dollar",
            "us dollars",
            "u.s. dollar",
            "u.s. dollars",
            "american dollar",
            "american dollars",
            "united states dollar",
            "united states dollars",
        ],
    ),
    (
        "Canadian dollar",
        "CAD",
        &["cad", "cad$", "c$", "can$", "canadian dollar", "canadian dollars", "canada dollar", "canada dollars"],
    ),
    (
        "Australian dollar",
        "AUD",
        &["aud", "aud$", "a$", "au$", "australian dollar", "australian dollars", "australia dollar"],
    ),
    ("New Zealand dollar", "NZD", &["nzd", "nz$", "new zealand dollar", "new zealand dollars"]),
    ("Hong Kong dollar", "HKD", &["hkd", "hk$", "hong kong dollar", "hong kong dollars"]),
    ("Singapore dollar", "SGD", &["sgd", "s$", "singapore dollar", "singapore dollars"]),
    (
        "New Taiwan dollar",
        "TWD",
        &["twd", "nt$", "new taiwan dollar", "new taiwan dollars", "taiwan dollar", "taiwan dollars"],
    ),
    ("Jamaican dollar", "JMD", &["jmd", "j$", "jamaican dollar", "jamaican dollars"]),
    (
        "British pound",
        "GBP",
        &["gbp", "british pound", "british pounds", "pound sterling", "pounds sterling", "sterling*"],
    ),
    ("Irish pound", "", &["irish pound", "irish pounds", "irish punt", "irish punts"]),
    ("Egyptian pound", "EGP", &["egp", "egyptian pound", "egyptian pounds"]),
    ("Lebanese pound", "LBP", &["lbp", "lebanese pound", "lebanese pounds"]),
    ("Syrian pound", "SYP", &["syrian pound", "syrian pounds"]),
    ("Japanese yen", "JPY", &["jpy", "yen", "japanese yen", "¥"]),
    ("Chinese yuan", "CNY", &["cny", "rmb", "yuan", "yuans", "chinese yuan", "renminbi", "chinese renminbi"]),
    ("South Korean won", "KRW", &["krw", "₩", "korean won", "south korean won", "won*"]),
    ("Indian rupee", "INR", &["inr", "₹", "indian rupee", "indian rupees"]),
    ("Pakistani rupee", "PKR", &["pkr", "pakistani rupee", "pakistani rupees"]),
    ("Sri Lankan rupee", "LKR", &["lkr", "sri lankan rupee", "sri lankan rupees"]),
    ("Nepalese rupee", "NPR", &["npr*", "nepalese rupee", "nepalese rupees"]),
    ("Bangladeshi taka", "BDT", &["bdt", "taka", "bangladeshi taka"]),
    ("Swiss franc", "CHF", &["chf", "sfr*", "swiss franc", "swiss francs"]),
    ("French franc", "", &["french franc", "french francs"]),
    ("Belgian franc", "", &["belgian franc", "belgian francs"]),
    ("Luxembourg franc", "", &["luxembourg franc", "luxembourg francs"]),
    (
        "German mark",
        "",
        &[
            "german mark",
            "german marks",
            "west german mark",
            "west german marks",
            "deutsche mark",
            "deutsche marks",
            "deutschmark",
            "deutschmarks",
            "deutsche-mark",
            "d-mark",
        ],
    ),
    ("Finnish markka", "", &["finnish markka", "finnish marks", "markka", "markkas"]),
    (
        "Netherlands guilder",
        "",
        &["dutch guilder", "dutch guilders", "netherlands guilder", "netherlands guilders", "guilder", "guilders"],
    ),
    ("Italian lira", "", &["italian lira", "italian lire"]),
    ("Spanish peseta", "", &["spanish peseta", "spanish pesetas", "peseta", "pesetas"]),
    ("Portuguese escudo", "", &["portuguese escudo", "portuguese escudos", "escudo", "escudos"]),
    ("Greek drachma", "", &["greek drachma", "greek drachmas", "drachma", "drachmas"]),
    ("Austrian schilling", "", &["austrian schilling", "austrian schillings"]),
    ("Swedish krona", "SEK", &["sek", "swedish krona", "swedish kronor", "swedish krone"]),
    ("Norwegian krone", "NOK", &["nok", "norwegian krone", "norwegian kroner", "norwegian krona"]),
    ("Danish krone", "DKK", &["dkk", "danish krone", "danish kroner", "danish krona"]),
    ("Icelandic króna", "ISK", &["icelandic krona", "icelandic kronur"]),
    ("Polish zloty", "PLN", &["pln", "zloty", "zlotys", "złoty", "polish zloty", "polish zlotys"]),
    ("Czech koruna", "CZK", &["czk", "koruna", "czech koruna", "czech crown", "czech crowns"]),
    ("Hungarian forint", "HUF", &["huf", "forint", "forints", "hungarian forint", "hungarian forints"]),
    ("Romanian leu", "RON", &["romanian leu", "romanian lei"]),
    ("Bulgarian lev", "BGN", &["bgn", "bulgarian lev", "bulgarian leva"]),
    ("Russian ruble", "RUB", &["rub*", "₽", "ruble", "rubles", "rouble", "roubles", "russian ruble", "russian rubles"]),
    ("Ukrainian hryvnia", "UAH", &["uah", "₴", "hryvnia", "hryvnias", "ukrainian hryvnia"]),
    ("Turkish lira", "TRY", &["turkish lira", "turkish liras", "₺"]),
    ("Georgian lari", "GEL", &["₾", "georgian lari", "lari*"]),
    (
        "Israeli new shekel",
        "ILS",
        &[
            "ils*",
            "₪",
            "shekel",
            "shekels",
            "israeli shekel",
            "israeli shekels",
            "new israeli shekel",
            "new israeli shekels",
        ],
    ),
    ("United Arab Emirates dirham", "AED", &["aed", "uae dirham", "uae dirhams", "emirati dirham", "emirati dirhams"]),
    ("Moroccan dirham", "MAD", &["moroccan dirham", "moroccan dirhams"]),
    ("Saudi riyal", "SAR", &["sar*", "saudi riyal", "saudi riyals", "saudi arabian riyal", "saudi arabian riyals"]),
    ("Qatari riyal", "QAR", &["qar", "qatari riyal", "qatari riyals"]),
    ("Iranian rial", "IRR", &["irr*", "iranian rial", "iranian rials"]),
    ("Kuwaiti dinar", "KWD", &["kwd", "kuwaiti dinar", "kuwaiti dinars"]),
    ("Iraqi dinar", "IQD", &["iqd", "iraqi dinar", "iraqi dinars"]),
    ("Jordanian dinar", "JOD", &["jordanian dinar", "jordanian dinars"]),
    ("Algerian dinar", "DZD", &["algerian dinar", "algerian dinars"]),
    ("Tunisian dinar", "TND", &["tunisian dinar", "tunisian dinars"]),
    ("South African rand", "ZAR", &["zar*", "rand*", "south african rand"]),
    ("Nigerian naira", "NGN", &["ngn", "naira", "nigerian naira"]),
    ("Kenyan shilling", "KES", &["kenyan shilling", "kenyan shillings"]),
    ("Ethiopian birr", "ETB", &["ethiopian birr", "birr"]),
    ("Ghana cedi", "GHS", &["ghana cedi", "cedi", "cedis"]),
    ("Mexican peso", "MXN", &["mxn", "mexican peso", "mexican pesos"]),
    ("Argentine peso", "ARS", &["argentine peso", "argentine pesos", "argentinian pesos"]),
    ("Chilean peso", "CLP", &["clp*", "chilean peso", "chilean pesos"]),
    ("Colombian peso", "COP", &["colombian peso", "colombian pesos"]),
    ("Philippine peso", "PHP", &["₱", "philippine peso", "philippine pesos", "filipino pesos"]),
    ("Brazilian real", "BRL", &["brl", "r$", "brazilian real", "brazilian reals", "brazilian reais", "reais"]),
    ("Peruvian sol", "PEN", &["peruvian sol", "peruvian soles"]),
    ("Thai baht", "THB", &["thb", "฿", "baht", "bahts", "thai baht"]),
    ("Vietnamese dong", "VND", &["vnd", "₫", "vietnamese dong"]),
    ("Indonesian rupiah", "IDR", &["idr", "rupiah", "rupiahs", "indonesian rupiah"]),
    ("Malaysian ringgit", "MYR", &["myr", "rm*", "ringgit", "ringgits", "malaysian ringgit", "malaysian ringgits"]),
    ("Kazakhstani tenge", "KZT", &["kzt", "tenge"]),
];

struct Table {
    units: Vec<Unit>,
    names: Trie,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut table = Table { units: Vec::new(), names: Trie::default() };
    for (name, code, words) in UNITS {
        for it in *words {
            let (word, plain) = it.strip_suffix('*').map_or((*it, true), |it| (it, false));
            table.names.insert(word, table.units.len());
            let code = (!code.is_empty()).then_some(*code);
            let minor = matches!(*name, "Cent" | "Penny" | "Pence" | "Sen" | "Satoshi");
            table.units.push(Unit { name, code, minor, plain });
        }
    }
    table
});

/// The currency named there.
fn unit(t: &Tokens<'_>, at: usize) -> Read<Unit> {
    let (index, end) = TABLE.names.longest(t, at)?;
    Some((*TABLE.units.get(index)?, end))
}

/// Only its sign, a code or a word: what may stand before the number.
fn leads(t: &Tokens<'_>, at: usize, end: usize) -> bool {
    let sign = t.get(end - 1).is_some_and(|it| it.kind == Kind::Mark);
    sign || t.any(at, "dollar sen rs rm sfr") || t.word(at).len() == 3 && end == at + 1 && !t.any(at, "yen won sol")
}

pub(crate) fn money(t: &Tokens<'_>, at: usize) -> Read<Value> {
    // "$ 75 million", "USD 200", "c $ 300 million"
    // "a $ 300 million contract": only "c $" is written apart.
    let apart = t.word(at).len() == 1 && t.word(at) != "c" && !t.glued(at + 1);
    if let Some((unit, next)) = unit(t, at).filter(|_| !apart)
        && !(t.glued(at) && t.digits(at.wrapping_sub(1)).is_empty() && !t.word(at.wrapping_sub(1)).is_empty())
    {
        if leads(t, at, next)
            && let Some((amount, end)) = number::amount(t, next)
            && !t.digits(next).is_empty()
            && !(t.get(next - 1).is_some_and(|it| it.kind != Kind::Mark) && codelike(t, next, end))
        {
            let (amount, end) = minor_after(t, unit, amount, end);
            // "$ 10 dollars" says it twice.
            let end = match self::unit(t, end) {
                Some((again, last))
                    if again.name == "Dollar"
                        && unit.name == "Dollar"
                        && !t.glued(next)
                        && t.word(last).is_empty() == t.word(last).is_empty() =>
                {
                    last
                }
                _ => end,
            };
            return Some((value(unit, Some(amount)), end));
        }
        let word = t.get(next - 1).is_some_and(|it| it.kind == Kind::Word);
        if unit.plain && word && !t.glued(at) && (next == at + 1) && bare(t.word(at)) {
            return Some((value(unit, None), next));
        }
    }
    if t.glued(at) && !t.digits(at).is_empty() && (t.is_any(at - 1, &[".", ","]) || !t.word(at - 1).is_empty()) {
        return None;
    }
    // "50 cents", "thirteen dollars and forty-five cents", "a dollar"
    let mut one = false;
    let (mut amount, mut next) = match number::amount(t, at) {
        Some(it) => it,
        None => match t.word(at) {
            "a" if !t.word(at + 1).is_empty() => {
                one = true;
                (Decimal::whole(1), at + 1)
            }
            "half" if t.any(at + 1, "a") => (Decimal::new(5, 1), at + 2),
            _ => return None,
        },
    };
    // "12-cent", "25 - cent"
    let word = t.get(next + 1).is_some_and(|it| it.kind == Kind::Word);
    next += usize::from(t.is(next, "-") && word && t.glued(next) == t.glued(next + 1));
    // "48.5 MGBP"
    if let Some((unit, end)) = million_code(t, next) {
        return Some((value(unit, Some(amount.times(Decimal::whole(1_000_000))?)), end));
    }
    let (unit, mut end) = unit(t, next)?;
    // A sign that the next number has: "10 $30".
    if t.get(next).is_some_and(|it| it.kind == Kind::Mark)
        && !t.glued(next)
        && t.glued(next + 1)
        && !t.digits(next + 1).is_empty()
    {
        return None;
    }
    if one && !(unit.plain || t.any(next, "pound cent penny euro buck")) || t.word(next) == "p" && !t.glued(next) {
        return None;
    }
    // "Three won": a verb, for no price is so small.
    if t.word(next) == "won" && amount.as_whole().is_some_and(|it| it < 100) {
        return None;
    }
    if t.word(next) == "p" && t.word(next + 1) == "m" || t.word(next) == "mark" && one {
        return None;
    }
    // "75 USD million"
    let big = match t.word(end) {
        "million" => 1_000_000,
        "billion" => 1_000_000_000,
        "thousand" => 1_000,
        "trillion" => 1_000_000_000_000,
        _ => 1,
    };
    if big > 1 {
        amount = amount.times(Decimal::whole(big))?;
        end += 1;
    } else {
        (amount, end) = minor_after(t, unit, amount, end);
    }
    Some((value(unit, Some(amount)), end))
}

fn value(unit: Unit, amount: Option<Decimal>) -> Value {
    Value::Money { amount, unit: unit.name, currency: unit.code }
}

/// Words that are found without an amount.
fn bare(word: &str) -> bool {
    matches!(word, "dollar" | "dollars" | "euro" | "euros" | "rmb" | "usd" | "yen" | "yuan" | "rupiah" | "baht")
}

/// "all 5", "try 10": words that are codes by chance are not in the table; what is left is a number that goes on.
fn codelike(t: &Tokens<'_>, at: usize, end: usize) -> bool {
    t.is(end, "-") && t.glued(end) && t.glued(end + 1) && !t.digits(end + 1).is_empty() && at < end
}

/// "MUSD": millions of it.
fn million_code(t: &Tokens<'_>, at: usize) -> Read<Unit> {
    let code = t.word(at).strip_prefix('m').filter(|it| it.len() == 3)?;
    let unit = TABLE.units.iter().find(|it| it.code.is_some_and(|it| it.eq_ignore_ascii_case(code)))?;
    Some((*unit, at + 1))
}

/// "and forty-five cents", "50" as it follows dollars.
fn minor_after(t: &Tokens<'_>, of: Unit, amount: Decimal, at: usize) -> (Decimal, usize) {
    let none = (amount, at);
    if of.minor {
        return none;
    }
    let from = at + usize::from(t.word(at) == "and");
    let Some((count, next)) = number::count(t, from).filter(|it| (1..100).contains(&it.0)) else { return none };
    if t.digits(from).len() == 1 && !t.word(from).is_empty() {
        return none;
    }
    let cents = unit(t, next).filter(|it| it.0.minor);
    let end = match cents {
        Some((_, end)) => end,
        None => {
            let goes_on = t.is_any(next, &[".", ",", "-", ":", "/"])
                && t.glued(next)
                && t.glued(next + 1)
                && t.get(next + 1).is_some_and(|it| it.kind == Kind::Digits);
            let glued_word = t.glued(next) && !t.word(next).is_empty();
            let closed = match t.get(next) {
                None => true,
                Some(it) if it.kind == Kind::Mark => !t.is_any(next, &["%", "$", "€", "£", "¥", "-", "/"]),
                Some(_) => t.any(next, "more for in and but to or per each a on from so instead now"),
            };
            // A list after a comma is no change.
            if !closed || goes_on || glued_word || t.is(at, ",") {
                return none;
            }
            next
        }
    };
    match amount.as_whole().and_then(|_| amount.plus(Decimal::new(count.into(), 2))) {
        Some(amount) => (amount, end),
        None => none,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let t = Tokens::new(text);
        let mut found = Vec::new();
        let mut at = 0;
        while at < t.len() {
            at = match money(&t, at) {
                Some((it, end)) => {
                    found.push(format!("{it}={}", &text[t.start(at)..t.end(end)]));
                    end
                }
                None => at + 1,
            };
        }
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn money_before_and_after_its_number() {
        check("about $ 75 million of", &["75000000 Dollar=$ 75 million"]);
        check("three thousand dollars", &["3000 Dollar=three thousand dollars"]);
        check("c $ 1.34 a share", &["1.34 CAD=c $ 1.34"]);
        check("usd115.5 or 115.5usd", &["115.5 USD=usd115.5", "115.5 USD=115.5usd"]);
        check("a 12-cent coin", &["12 Cent=12-cent"]);
        check("thirteen dollars and forty-five cents", &["13.45 Dollar=thirteen dollars and forty-five cents"]);
        check("it costs 15 dollars 50.", &["15.5 Dollar=15 dollars 50"]);
        check("10 $ 30 $", &["10 Dollar=10 $", "30 Dollar=30 $"]);
        check("10 rmb 20 usd", &["10 CNY=10 rmb", "20 USD=20 usd"]);
        check("75 usd million", &["75000000 USD=75 usd million"]);
        check("48.5 mgbp", &["48500000 GBP=48.5 mgbp"]);
        check("a quarter million us dollars", &["250000 USD=a quarter million us dollars"]);
        check("420 million finnish markka", &["420000000 Finnish markka=420 million finnish markka"]);
        check("100₾", &["100 GEL=100₾"]);
        check("all 70 of us", &[]);
        check("fifty dollars and two people", &["50 Dollar=fifty dollars"]);
    }
}
