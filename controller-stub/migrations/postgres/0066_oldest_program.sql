-- The oldest program that may work with these tables, by the number of its last migration. A migration that older programs cannot work beside raises it.
CREATE TABLE oldest_program (migration BIGINT NOT NULL);
INSERT INTO oldest_program VALUES (66);
