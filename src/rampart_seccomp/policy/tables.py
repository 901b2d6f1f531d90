def compile_tables(matcher):
    return b"x"
