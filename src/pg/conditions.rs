//! The names of SQLSTATE conditions whose messages may hold values. Pure.

/// The condition's name (PostgreSQL's appendix "Error Codes"), or its class's.
pub(crate) fn name(sqlstate: &str) -> &'static str {
    NAMES
        .binary_search_by_key(&sqlstate, |(code, _)| code)
        .ok()
        .and_then(|at| NAMES.get(at))
        .map_or_else(|| class_name(sqlstate), |(_, name)| name)
}

fn class_name(sqlstate: &str) -> &'static str {
    match sqlstate.get(..2) {
        Some("22") => "data_exception",
        Some("23") => "integrity_constraint_violation",
        Some("38") => "external_routine_exception",
        Some("39") => "external_routine_invocation_exception",
        Some("42") => "syntax_error_or_access_rule_violation",
        Some("HV") => "fdw_error",
        Some("P0") => "plpgsql_error",
        _ => "an error whose text may hold values",
    }
}

const NAMES: &[(&str, &str)] = &[
    ("22001", "string_data_right_truncation"),
    ("22002", "null_value_no_indicator_parameter"),
    ("22003", "numeric_value_out_of_range"),
    ("22004", "null_value_not_allowed"),
    ("22005", "error_in_assignment"),
    ("22007", "invalid_datetime_format"),
    ("22008", "datetime_field_overflow"),
    ("22009", "invalid_time_zone_displacement_value"),
    ("2200G", "most_specific_type_mismatch"),
    ("2200H", "sequence_generator_limit_exceeded"),
    ("2200L", "not_an_xml_document"),
    ("2200M", "invalid_xml_document"),
    ("2200N", "invalid_xml_content"),
    ("2200S", "invalid_xml_comment"),
    ("2200T", "invalid_xml_processing_instruction"),
    ("22011", "substring_error"),
    ("22012", "division_by_zero"),
    ("22013", "invalid_preceding_or_following_size"),
    ("22015", "interval_field_overflow"),
    ("22018", "invalid_character_value_for_cast"),
    ("22019", "invalid_escape_character"),
    ("2201B", "invalid_regular_expression"),
    ("2201E", "invalid_argument_for_logarithm"),
    ("2201F", "invalid_argument_for_power_function"),
    ("22021", "character_not_in_repertoire"),
    ("22023", "invalid_parameter_value"),
    ("22025", "invalid_escape_sequence"),
    ("22026", "string_data_length_mismatch"),
    ("2202E", "array_subscript_error"),
    ("22030", "duplicate_json_object_key_value"),
    ("22032", "invalid_json_text"),
    ("22P01", "floating_point_exception"),
    ("22P02", "invalid_text_representation"),
    ("22P03", "invalid_binary_representation"),
    ("22P04", "bad_copy_file_format"),
    ("22P05", "untranslatable_character"),
    ("23000", "integrity_constraint_violation"),
    ("23001", "restrict_violation"),
    ("23502", "not_null_violation"),
    ("23503", "foreign_key_violation"),
    ("23505", "unique_violation"),
    ("23514", "check_violation"),
    ("23P01", "exclusion_violation"),
    ("42501", "insufficient_privilege"),
    ("44000", "with_check_option_violation"),
    ("P0001", "raise_exception"),
    ("P0002", "no_data_found"),
    ("P0003", "too_many_rows"),
    ("P0004", "assert_failure"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_names() {
        assert!(NAMES.is_sorted_by_key(|(code, _)| code));
        assert_eq!(name("23505"), "unique_violation");
        assert_eq!(name("22ZZZ"), "data_exception");
        assert_eq!(name(""), "an error whose text may hold values");
    }
}
