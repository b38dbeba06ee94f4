//! Tests of [`super::ClassTable`].
use super::*;

const HEAD: &str = "class,1,olives,#6b8e23\nclass,5,cereals,#e8c547\n";

fn table(rules: &str) -> ClassTable {
    ClassTable::parse(&format!("{HEAD}{rules}"), "classes.csv").unwrap()
}

fn class(n: u8) -> Lookup {
    Lookup::Class(ClassId::try_from(n).unwrap())
}

fn shipped() -> ClassTable {
    let text = include_str!("../../config/classes/eurocrops.csv");
    ClassTable::parse(text, "config/classes/eurocrops.csv").unwrap()
}

#[test]
fn exact_beats_the_longest_prefix_and_codes_beat_names() {
    let t = table("prefix,33,,\nprefix,3301,5,\nprefix,330102,,\nexact,3301029900,1,\nname,barley,5,\n");
    assert_eq!(t.by_code("3301010000"), class(5));
    assert_eq!(t.by_code("3301020000"), Lookup::Excluded);
    assert_eq!(t.by_code("3301029900"), class(1));
    assert_eq!(t.classify(Some("3301020000"), Some("barley")), Lookup::Excluded);
    assert_eq!(t.classify(Some("999"), Some("barley")), class(5));
    assert_eq!(t.classify(Some(""), Some(" Barley ")), class(5));
    assert_eq!(t.classify(None, Some("maize")), Lookup::Unknown);
    assert_eq!(t.classify(None, None), Lookup::Unknown);
}

#[test]
fn codes_lose_blanks_and_the_zeros_of_a_float() {
    let t = table("exact,3301010000,5,\nprefix,1.5,1,\n");
    for code in ["3301010000", " 3301010000 ", "3301010000.0", "3301010000.", "3301 010 000"] {
        assert_eq!(t.by_code(code), class(5), "{code:?}");
    }
    assert_eq!(t.by_code("1.50"), class(1));
    assert_eq!(t.by_code("3301010000.5"), Lookup::Unknown);
    assert_eq!(t.by_code("é"), Lookup::Unknown);
}

#[test]
fn quotes_comments_and_windows_line_ends_are_read() {
    let t = table("# comment\r\n\r\nkind,key,class,note\r\nexact,7,5,\"a, \"\"b\"\"\"\r\n");
    assert_eq!(t.by_code("7"), class(5));
    assert_eq!(t.classes().len(), 2);
    let olives = &t.classes()[&ClassId::try_from(1).unwrap()];
    assert_eq!((olives.name.as_str(), olives.colour), ("olives", [0x6b, 0x8e, 0x23]));
}

#[test]
fn each_mistake_is_told_with_file_line_and_remedy() {
    let cases = [
        ("exact,7,5", "classes.csv, line 3: 3 columns"),
        ("exact,7,5,a,b", "in double quotes"),
        ("exact,7,5,\"a", "not closed"),
        ("exact,7,5,\"a\"b", "text follows"),
        ("exakt,7,5,", "`exakt` is not one of class, exact, prefix, name"),
        ("exact,7,0,", "`0` is not a class number"),
        ("exact,7,x,", "use 1 to 254"),
        ("class,255,nope,#000000", "use 1 to 254"),
        ("exact,7,9,", "class 9 is not declared: add a row `class,9,NAME,#rrggbb`"),
        ("class,7,,#000000", "class 7 needs a short name"),
        ("class,7,a b,#000000", "class 7 needs a short name"),
        ("class,7,a,red", "`red` is not a colour"),
        ("class,7,a,#12345g", "is not a colour"),
        ("class,5,again,#123456", "class 5 is declared already"),
        ("prefix, ,5,", "the key is empty"),
        ("name,a,5,\nname,A,1,", "line 4: `A` has a rule of this kind already (line 3)"),
    ];
    for (text, expected) in cases {
        let error = ClassTable::parse(&format!("{HEAD}{text}\n"), "classes.csv").unwrap_err().to_string();
        assert!(error.contains(expected), "{text:?} gave {error:?}");
    }
    assert_eq!(ClassTable::parse("", "f").unwrap_err().problem, Problem::NoClasses);
}

#[test]
fn the_shipped_file_maps_the_names_of_the_original() {
    let t = shipped();
    let expected: [(u8, &[&str]); 8] = [
        (1, &["olive_plantations"]),
        (2, &["vineyards_wine_vine_rebland_grapes"]),
        (3, &["citrus_plantations", "fruit_temperate_climate", "fruit_subtropical_climate"]),
        (4, &["almond", "orchards_fruits", "tree_wood_forest", "other_tree_wood_forest"]),
        (5, &["durum_hard_wheat", "common_soft_wheat", "barley", "oats", "triticale"]),
        (6, &["broad_beans_horse_beans", "chickpeas", "peas", "lentils", "vetches"]),
        (7, &["tomato", "melons", "watermelon", "potatoes", "vegetables_fresh"]),
        (8, &["fallow_land_not_crop", "bare_arable_land"]),
    ];
    for (id, names) in expected {
        for name in names {
            assert_eq!(t.classify(None, Some(name)), class(id), "{name}");
        }
    }
    assert_eq!(t.by_name("winter_barley"), Lookup::Unknown);
}

#[test]
fn the_shipped_file_maps_hcat3_codes() {
    let t = shipped();
    let cases = [
        ("3301010401", class(5)),
        ("3301010402", Lookup::Excluded),
        ("3301010600", Lookup::Excluded),
        ("3301020600", class(6)),
        ("3301090305", class(6)),
        ("3301090301", Lookup::Excluded),
        ("3301280000", class(7)),
        ("3301110000", class(8)),
        ("3303050000", class(1)),
        ("3303060000", class(2)),
        ("3303040000", class(3)),
        ("3303030100", class(4)),
        ("3306000000", class(4)),
        ("3302000000", Lookup::Excluded),
        ("3399000000", Lookup::Excluded),
        ("101", Lookup::Unknown),
    ];
    for (code, expected) in cases {
        assert_eq!(t.by_code(code), expected, "{code}");
    }
    let ids: Vec<u8> = t.classes().keys().map(|c| c.get()).collect();
    assert_eq!(ids, [1, 2, 3, 4, 5, 6, 7, 8]);
}
