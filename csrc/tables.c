#include "tables.h"
struct rs_tables { uint64_t serial; };
struct rs_walker { int unused; };
int rs_tables_load(const char *blob, size_t size, uint64_t serial, struct rs_tables **out)
{
    (void)blob;
    if (size == 0) return -EINVAL;
    *out = calloc(1, sizeof **out);
    if (!*out) return -ENOMEM;
    (*out)->serial = serial;
    return 0;
}
void rs_tables_free(struct rs_tables *tables) { free(tables); }
uint64_t rs_tables_serial(const struct rs_tables *tables) { return tables->serial; }
int rs_walker_new(size_t memory, struct rs_walker **out)
{
    (void)memory;
    *out = calloc(1, sizeof **out);
    return *out ? 0 : -ENOMEM;
}
void rs_walker_free(struct rs_walker *walker) { free(walker); }
int rs_decide_path(const struct rs_tables *tables, struct rs_walker *walker, enum rs_operation operation,
                   const char *path, size_t length, struct rs_verdict *out)
{
    (void)tables; (void)walker; (void)operation; (void)path; (void)length;
    *out = (struct rs_verdict){.answer = RS_UNDECIDED};
    return 0;
}
int rs_decide_address(const struct rs_tables *tables, enum rs_operation operation, const unsigned char *address,
                      size_t length, unsigned port, struct rs_verdict *out)
{
    (void)tables; (void)operation; (void)address; (void)length; (void)port;
    *out = (struct rs_verdict){.answer = RS_UNDECIDED};
    return 0;
}
