-- What SQLite has built in, so that one statement runs on both. The escape of a NUL character, which jsonb does not take, becomes that of U+FFFD.
CREATE FUNCTION json_extract(document TEXT, path TEXT) RETURNS TEXT
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT jsonb_path_query_first(CAST(replace(document, '\u0000', '\ufffd') AS JSONB), CAST(path AS JSONPATH)) #>> '{}'
$$;

-- A path of names, such as $.skip, alone.
CREATE FUNCTION json_set(document TEXT, path TEXT, value TEXT) RETURNS TEXT
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT CAST(jsonb_set(CAST(replace(document, '\u0000', '\ufffd') AS JSONB), string_to_array(substr(path, 3), '.'), to_jsonb(value)) AS TEXT)
$$;

-- The parts of an object by their names, or of an array by their places from 0.
CREATE FUNCTION json_each(document TEXT) RETURNS TABLE (key TEXT, value TEXT)
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    parsed JSONB := CAST(replace(document, '\u0000', '\ufffd') AS JSONB);
BEGIN
    IF jsonb_typeof(parsed) = 'array' THEN
        RETURN QUERY SELECT CAST(it.place - 1 AS TEXT), it.part #>> '{}'
            FROM jsonb_array_elements(parsed) WITH ORDINALITY AS it (part, place);
    ELSE
        RETURN QUERY SELECT it.name, it.part #>> '{}' FROM jsonb_each(parsed) AS it (name, part);
    END IF;
END
$$;

CREATE FUNCTION json_text(elements TEXT[]) RETURNS TEXT
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT CAST(array_to_json(elements) AS TEXT) $$;

CREATE AGGREGATE json_group_array(TEXT) (
    SFUNC = array_append, STYPE = TEXT[], INITCOND = '{}', FINALFUNC = json_text
);
