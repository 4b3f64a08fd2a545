-- Which of the processes that have served the database does so now, and when it said so last. What an earlier one writes is refused.
CREATE TABLE serving (
    epoch BIGINT NOT NULL,
    beaten_at TIMESTAMPTZ NOT NULL
);
INSERT INTO serving (epoch, beaten_at) VALUES (0, clock_timestamp());

CREATE FUNCTION refuse_unless_serving(mine BIGINT) RETURNS VOID
    LANGUAGE plpgsql AS $$
BEGIN
    IF mine <> (SELECT epoch FROM serving) THEN
        RAISE EXCEPTION 'another controller serves the database' USING ERRCODE = 'AIO01';
    END IF;
END
$$;
