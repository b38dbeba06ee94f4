//! The crops of the made-up region: how EuroCrops would write them down, how common they are, how they look.
//!
//! Contract: class shares follow those of Spain 2023 (7 rare; 1, 4 and 5 frequent). Codes and names are mixed on
//! purpose: parents, `winter_` variants, rows without a code, codes of no class, and codes nobody knows.
//! Trap: `class` is what the classes file should say of the row; nothing outside the demo reads it.

/// How a field looks from above; decides its spectrum through the year.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Cover {
    Olive,
    Vineyard,
    Citrus,
    Fruit,
    Almond,
    Forest,
    Cereal,
    Legume,
    Vegetables,
    Fallow,
    Maize,
    Alfalfa,
    Sunflower,
    Pasture,
}

/// One kind of row in the parcels' table.
#[derive(Debug)]
pub(super) struct Crop {
    /// `EC_trans_n`.
    pub(super) translated: &'static str,
    /// `EC_hcat_n`.
    pub(super) name: Option<&'static str>,
    /// `EC_hcat_c`, ten digits.
    pub(super) code: Option<&'static str>,
    /// 1 to 8, or 0 for none.
    pub(super) class: u8,
    /// Relative frequency.
    pub(super) weight: f64,
    pub(super) cover: Cover,
}

const fn crop(
    translated: &'static str,
    name: &'static str,
    code: &'static str,
    class: u8,
    weight: f64,
    cover: Cover,
) -> Crop {
    let code = if code.is_empty() { None } else { Some(code) };
    let name = if name.is_empty() { None } else { Some(name) };
    Crop { translated, name, code, class, weight, cover }
}

/// Every crop; weights sum to about 100.
pub(super) static CROPS: [Crop; 36] = [
    crop("OLIVE", "olive_plantations", "3303050000", 1, 18.0, Cover::Olive),
    crop("OIL OLIVE", "olives_for_oil_production", "3303050100", 1, 2.0, Cover::Olive),
    crop("VINEYARD", "vineyards_wine_vine_rebland_grapes", "3303060000", 2, 6.0, Cover::Vineyard),
    crop("TABLE GRAPES", "vineyards_wine_vine_rebland_grapes", "3303060000", 2, 0.6, Cover::Vineyard),
    crop("PEACH TREE", "peach", "3303011100", 3, 1.2, Cover::Fruit),
    crop("ORANGE TREE", "citrus_plantations", "3303040000", 3, 1.2, Cover::Citrus),
    crop("PEAR TREE", "pears", "3303011200", 3, 0.6, Cover::Fruit),
    crop("FRUIT TREES", "fruit_temperate_climate", "", 3, 0.4, Cover::Fruit),
    crop("ALMOND", "almond", "3303030100", 4, 13.0, Cover::Almond),
    crop("OTHER FOREST AREAS", "tree_wood_forest", "3306000000", 4, 5.0, Cover::Forest),
    crop("PINE TREES", "other_tree_wood_forest", "3306990000", 4, 2.5, Cover::Forest),
    crop("ORCHARD", "orchards_fruits", "", 4, 0.3, Cover::Almond),
    crop("SOFT WHEAT", "common_soft_wheat", "3301010100", 5, 5.0, Cover::Cereal),
    crop("WINTER SOFT WHEAT", "winter_common_soft_wheat", "3301010101", 5, 5.0, Cover::Cereal),
    crop("BARLEY", "barley", "3301010400", 5, 8.0, Cover::Cereal),
    crop("WINTER BARLEY", "winter_barley", "3301010401", 5, 5.0, Cover::Cereal),
    crop("DURUM", "durum_hard_wheat", "3301010200", 5, 2.5, Cover::Cereal),
    crop("OAT", "oats", "3301010500", 5, 2.0, Cover::Cereal),
    crop("TRITICALE", "triticale", "3301010800", 5, 1.0, Cover::Cereal),
    crop("CHICKPEA", "chickpeas", "3301020200", 6, 0.8, Cover::Legume),
    crop("PEA", "peas", "3301020600", 6, 1.2, Cover::Legume),
    crop("LENTIL", "lentils", "3301020500", 6, 0.5, Cover::Legume),
    crop("VETCHES", "vetches", "3301090305", 6, 1.6, Cover::Legume),
    crop("BROAD BEAN", "broad_beans_horse_beans", "", 6, 0.4, Cover::Legume),
    crop("TOMATO", "tomato", "3301280000", 7, 0.5, Cover::Vegetables),
    crop("MELON", "melon", "3301140300", 7, 0.3, Cover::Vegetables),
    crop("POTATO", "potatoes", "3301030000", 7, 0.2, Cover::Vegetables),
    crop("TRADITIONAL FALLOW", "fallow_land_not_crop", "3301110000", 8, 8.0, Cover::Fallow),
    crop("BARE LAND", "bare_arable_land", "", 8, 0.6, Cover::Fallow),
    crop("CORN", "grain_maize_corn_popcorn", "3301010600", 0, 2.5, Cover::Maize),
    crop("ALFALFA", "alfalfa_lucerne", "3301090301", 0, 2.5, Cover::Alfalfa),
    crop("SUNFLOWER", "sunflower", "3301060500", 0, 1.2, Cover::Sunflower),
    crop(
        "PERMANENT PASTURES OF 5 OR MORE YEARS",
        "pasture_meadow_grassland_grass",
        "3302000000",
        0,
        3.0,
        Cover::Pasture,
    ),
    crop("UNKNOWN PRODUCT", "not_known_and_other", "3399000000", 0, 0.8, Cover::Pasture),
    crop("LANDSCAPE ELEMENT", "", "", 0, 0.4, Cover::Forest),
    crop("TRIAL CROP", "mystery_crop", "9912345678", 0, 0.3, Cover::Alfalfa),
];

/// How a class is shown in pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClassStyle<'a> {
    /// The mask value.
    pub class: u8,
    /// A short name.
    pub name: &'a str,
    /// Red, green, blue.
    pub colour: [u8; 3],
}

const fn style(class: u8, name: &'static str, colour: [u8; 3]) -> ClassStyle<'static> {
    ClassStyle { class, name, colour }
}

/// The eight classes of the mission.
pub const CLASS_STYLES: [ClassStyle<'static>; 8] = [
    style(1, "olives", [120, 150, 60]),
    style(2, "vineyards", [150, 60, 140]),
    style(3, "citrus and fruit", [250, 150, 30]),
    style(4, "almond and trees", [30, 120, 70]),
    style(5, "winter cereals", [240, 210, 80]),
    style(6, "legumes", [90, 200, 190]),
    style(7, "summer vegetables", [225, 50, 50]),
    style(8, "fallow", [170, 120, 80]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_skewed_as_in_spain() {
        let total: f64 = CROPS.iter().map(|c| c.weight).sum();
        let share = |class| CROPS.iter().filter(|c| c.class == class).map(|c| c.weight).sum::<f64>() / total;
        assert!(share(7) < 0.02 && share(7) > 0.003);
        for frequent in [1, 4, 5] {
            assert!(share(frequent) > 0.15, "{frequent}");
        }
        assert!((1..=8).all(|class| share(class) > 0.0) && share(0) > 0.05);
    }
}
