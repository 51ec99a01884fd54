"""The names that raw SQL may have before a parenthesis: functions that neither execute SQL nor change settings.

Do not add: ``set_config``; functions that execute SQL from a string (``query_to_xml`` and the like, ``ts_stat``,
``ts_rewrite``, ``dblink``); functions for files, large objects, replication, or signals to other connections; advisory
locks, which can outlive a transaction; functions that return the size or the statistics of a table, since these reveal
something about all tenants' rows.
"""

from __future__ import annotations

from typing import Final

KEYWORDS: Final = frozenset(
    """
    ALL ANALYZE AND ANY ARRAY AS BETWEEN BY CAST COALESCE COLUMNS CONFLICT CUBE DISTINCT ELSE ESCAPE EXCEPT EXISTS
    EXPLAIN EXTRACT FILTER FROM GREATEST GROUP GROUPING HAVING ILIKE IN INSERT INTERSECT IS ISNULL JOIN JSON_ARRAY
    JSON_EXISTS JSON_OBJECT JSON_QUERY JSON_SCALAR JSON_SERIALIZE JSON_TABLE JSON_VALUE LATERAL LEAST LIKE LIMIT
    MATERIALIZED NESTED NORMALIZE NOT NOTNULL NULLIF OFFSET ON ONLY OPERATOR OR OVER OVERLAPS OVERLAY PASSING
    POSITION REPEATABLE RETURNING ROLLUP ROW SELECT SET SETS SOME SUBSTRING SYMMETRIC THEN TO TREAT TRIM UNION USING
    VALUES VERBOSE WHEN WHERE ZONE
    """.split()  # noqa: SIM905 - a list of words is read more easily
)
"""Words of the grammar that a parenthesis can follow."""

TYPES: Final = frozenset(
    """
    bigint bit boolean bpchar bytea char character dec decimal double float int integer interval jsonb nchar numeric
    precision real smallint text time timestamp timestamptz timetz uuid varbit varchar varying
    """.split()  # noqa: SIM905 - a list of words is read more easily
)
"""Types that a length or a precision in parentheses can follow."""

FUNCTIONS: Final = frozenset(
    """
    abs acos acosd acosh asin asind asinh atan atan2 atan2d atand atanh cbrt ceil ceiling cos cosd cosh cot cotd
    degrees div erf erfc exp factorial floor gamma gcd lcm lgamma ln log log10 min_scale mod pi pow power radians
    random random_normal round scale sign sin sind sinh sqrt tan tand tanh trim_scale trunc width_bucket

    ascii bit_count bit_length btrim casefold char_length character_length chr concat concat_ws convert convert_from
    convert_to crc32 crc32c decode encode format get_bit get_byte initcap is_normalized left length lower lpad ltrim
    md5 normalize octet_length overlay parse_ident position quote_ident quote_literal quote_nullable regexp_count
    regexp_instr regexp_like regexp_match regexp_matches regexp_replace regexp_split_to_array regexp_split_to_table
    regexp_substr repeat replace reverse right rpad rtrim set_bit set_byte sha224 sha256 sha384 sha512 split_part
    starts_with string_to_array string_to_table strpos substr substring to_ascii to_bin to_char to_hex to_number
    to_oct translate trim unicode_assigned unistr upper

    age clock_timestamp date date_add date_bin date_part date_subtract date_trunc extract isfinite justify_days
    justify_hours justify_interval localtime localtimestamp make_date make_interval make_time make_timestamp
    make_timestamptz now overlaps statement_timestamp timeofday timezone to_date to_timestamp transaction_timestamp

    any_value array_agg avg bit_and bit_or bit_xor bool_and bool_or corr count covar_pop covar_samp every grouping
    json_agg json_agg_strict json_arrayagg json_object_agg json_object_agg_strict json_object_agg_unique
    json_object_agg_unique_strict json_objectagg jsonb_agg jsonb_agg_strict jsonb_object_agg jsonb_object_agg_strict
    jsonb_object_agg_unique jsonb_object_agg_unique_strict max min mode percentile_cont percentile_disc range_agg
    range_intersect_agg regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy
    stddev stddev_pop stddev_samp string_agg sum var_pop var_samp variance

    cume_dist dense_rank first_value lag last_value lead nth_value ntile percent_rank rank row_number

    array_append array_cat array_dims array_fill array_length array_lower array_ndims array_position array_positions
    array_prepend array_remove array_replace array_reverse array_sample array_shuffle array_sort array_to_json
    array_to_string array_upper cardinality generate_series generate_subscripts num_nonnulls num_nulls trim_array
    unnest

    json_array_elements json_array_elements_text json_array_length json_build_array json_build_object json_each
    json_each_text json_extract_path json_extract_path_text json_object json_object_keys json_populate_record
    json_populate_recordset json_strip_nulls json_to_record json_to_recordset json_typeof jsonb jsonb_array_elements
    jsonb_array_elements_text jsonb_array_length jsonb_build_array jsonb_build_object jsonb_each jsonb_each_text
    jsonb_exists jsonb_exists_all jsonb_exists_any jsonb_extract_path jsonb_extract_path_text jsonb_insert
    jsonb_object jsonb_object_keys jsonb_path_exists jsonb_path_exists_tz jsonb_path_match jsonb_path_match_tz
    jsonb_path_query jsonb_path_query_array jsonb_path_query_array_tz jsonb_path_query_first jsonb_path_query_first_tz
    jsonb_path_query_tz jsonb_populate_record jsonb_populate_recordset jsonb_pretty jsonb_set jsonb_set_lax
    jsonb_strip_nulls jsonb_to_record jsonb_to_recordset jsonb_typeof row_to_json to_json to_jsonb

    array_to_tsvector get_current_ts_config json_to_tsvector jsonb_to_tsvector numnode phraseto_tsquery
    plainto_tsquery querytree setweight strip to_tsquery to_tsvector ts_debug ts_delete ts_filter ts_headline
    ts_lexize ts_parse ts_rank ts_rank_cd ts_token_type tsquery_phrase tsvector_to_array websearch_to_tsquery

    daterange datemultirange int4multirange int4range int8multirange int8range isempty lower_inc lower_inf multirange
    nummultirange numrange range_merge tsmultirange tsrange tstzmultirange tstzrange upper_inc upper_inf

    abbrev broadcast family host hostmask inet_merge inet_same_family macaddr8_set7bit masklen netmask network
    set_masklen text

    area box center circle diagonal diameter height isclosed isopen line lseg npoints path point polygon radius width

    enum_first enum_last enum_range gen_random_uuid uuid_extract_timestamp uuid_extract_version uuidv4 uuidv7

    col_description current_database current_query current_schema current_schemas current_setting current_user currval
    format_type has_any_column_privilege has_column_privilege has_database_privilege has_function_privilege
    has_schema_privilege has_sequence_privilege has_table_privilege inet_client_addr inet_client_port inet_server_addr
    inet_server_port lastval nextval obj_description pg_backend_pid pg_client_encoding pg_column_size
    pg_current_snapshot pg_current_xact_id pg_current_xact_id_if_assigned pg_get_constraintdef pg_get_expr
    pg_get_functiondef pg_get_indexdef pg_get_serial_sequence pg_get_viewdef pg_has_role pg_is_in_recovery
    pg_postmaster_start_time pg_size_pretty pg_sleep pg_sleep_for pg_sleep_until pg_table_is_visible pg_typeof
    row_security_active session_user shobj_description to_regclass to_regnamespace to_regproc to_regprocedure
    to_regrole to_regtype txid_current txid_current_if_assigned txid_current_snapshot txid_status version

    bernoulli system

    levenshtein similarity strict_word_similarity unaccent uuid_generate_v4 word_similarity
    """.split()  # noqa: SIM905 - a list of words is read more easily
)
"""The names of PostgreSQL's functions; the last two lines are sampling methods, and functions of known extensions."""
