-- What a controller writes is refused once the others have taken it for dead.
CREATE FUNCTION refuse_unless_member(mine BIGINT) RETURNS VOID
    LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM controllers WHERE number = mine) THEN
        RAISE EXCEPTION 'the other controllers took this one for dead' USING ERRCODE = 'AIO01';
    END IF;
END
$$;
