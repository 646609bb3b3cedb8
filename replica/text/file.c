/* file.c - a model folder's file as bytes. */
#include "replica/text/text_int.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Reads what is there now; a file that grows meanwhile is cut where it ended. */
static weir_err read_fd(int fd, const char *path, struct weir_buf *out, struct weir_why *why)
{
    struct stat st;

    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
        return weir_fail(why, WEIR_IO, "%s: not a file", path);
    size_t size = (size_t)st.st_size;
    if (size > out->limit)
        return weir_fail(why, WEIR_TOOLARGE, "%s: %zu bytes; at most %zu are read", path, size, out->limit);
    char *room = weir_buf_reserve(out, size ? size : 1);
    if (!room)
        return weir_fail(why, WEIR_NOMEM, "%s: no memory for %zu bytes", path, size);
    size_t n = 0;
    while (n < size) {
        ssize_t got = read(fd, room + n, size - n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return weir_fail(why, WEIR_IO, "%s: %s", path, got < 0 ? strerror(errno) : "ends early");
        n += (size_t)got;
    }
    weir_buf_commit(out, size);
    return WEIR_OK;
}

weir_err text_file_read(const char *dir, const char *name, struct weir_buf *out, struct weir_why *why)
{
    char path[PATH_MAX];
    int len = snprintf(path, sizeof path, "%s/%s", dir, name);

    if (len < 0 || (size_t)len >= sizeof path)
        return weir_fail(why, WEIR_IO, "the path of %s is too long", name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return weir_fail(why, errno == ENOENT ? WEIR_NOTFOUND : WEIR_IO, "%s: %s", path, strerror(errno));
    weir_err err = read_fd(fd, path, out, why);
    close(fd);
    return err;
}
