CREATE FUNCTION modelyard_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the history is append-only';
END
$$;

CREATE TRIGGER history_is_never_changed BEFORE UPDATE OR DELETE OR TRUNCATE ON history
    FOR EACH STATEMENT EXECUTE FUNCTION modelyard_append_only();

-- Whoever listens hears of a change as soon as it is committed.
CREATE FUNCTION modelyard_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('modelyard', NEW.sequence::text);
    RETURN NULL;
END
$$;

CREATE TRIGGER history_is_announced AFTER INSERT ON history
    FOR EACH ROW EXECUTE FUNCTION modelyard_notify();
