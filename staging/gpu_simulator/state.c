#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEFAULT_STATE "/var/lib/gpu-simulator/state.json"
#define FILE_LIMIT (1024 * 1024)

const char *state_path(void)
{
    const char *path = getenv("GPU_SIMULATOR_STATE");
    return path != NULL && *path != '\0' ? path : DEFAULT_STATE;
}

/* The content of a file, to be freed; NULL when it cannot be read or is larger than any of ours. */
static char *read_file(const char *path)
{
    char *content = NULL;
    size_t length = 0, capacity = 0;
    ssize_t got = 0;
    int file = open(path, O_RDONLY | O_CLOEXEC);

    if (file < 0)
        return NULL;
    do {
        if (length + 1 >= capacity) {
            char *larger = capacity < FILE_LIMIT ? realloc(content, capacity += 16384) : NULL;
            if (larger == NULL) {
                got = -1;
                break;
            }
            content = larger;
        }
        got = read(file, content + length, capacity - length - 1);
        if (got > 0)
            length += (size_t)got;
    } while (got > 0 || (got < 0 && errno == EINTR));
    close(file);
    if (got < 0) {
        free(content);
        return NULL;
    }
    content[length] = '\0';
    return content;
}

struct json *state_read(void)
{
    char *content = read_file(state_path());
    struct json *state = content != NULL ? json_parse(content) : NULL;
    free(content);
    return state;
}

/* Writes <root>/proc/driver/nvidia/version; the root is $GPU_SIMULATOR_ROOT, or beside the state. */
static void version_path(char *path, size_t size)
{
    const char *root = getenv("GPU_SIMULATOR_ROOT"), *state = state_path();
    const char *slash = strrchr(state, '/');
    int folder_length = slash != NULL ? (int)(slash - state + 1) : 0;
    if (root != NULL && *root != '\0')
        snprintf(path, size, "%s/proc/driver/nvidia/version", root);
    else
        snprintf(path, size, "%.*sroot/proc/driver/nvidia/version", folder_length, state);
}

int module_version(char *version, unsigned int size)
{
    char path[PATH_MAX], *content, *rest, *word;
    int found = 0;

    version_path(path, sizeof(path));
    content = read_file(path);
    if (content == NULL)
        return 0;
    /* The first word that looks like 595.91.07; "x86_64" before it does not start with a digit. */
    for (word = strtok_r(content, " \t\n", &rest); word != NULL && !found; word = strtok_r(NULL, " \t\n", &rest))
        if (*word >= '0' && *word <= '9' && strchr(word, '.') != NULL) {
            snprintf(version, size, "%s", word);
            found = 1;
        }
    free(content);
    return found;
}

/* Puts `document` in the place of the state file in one step, with the same mode and owner. */
static nvmlReturn_t replace_state(const char *document)
{
    char temporary[PATH_MAX];
    struct stat old;
    size_t length = strlen(document);
    int file, written;

    if (stat(state_path(), &old) != 0)
        return NVML_ERROR_UNKNOWN;
    snprintf(temporary, sizeof(temporary), "%s.XXXXXX", state_path());
    file = mkstemp(temporary);
    if (file < 0)
        return errno == EACCES || errno == EROFS || errno == EPERM ? NVML_ERROR_NO_PERMISSION : NVML_ERROR_UNKNOWN;
    written = write(file, document, length) == (ssize_t)length && fchmod(file, old.st_mode & 07777) == 0;
    /* Where this fails the caller does not own the file and did not need to. */
    if (fchown(file, old.st_uid, old.st_gid) != 0)
        errno = 0;
    if (close(file) != 0 || !written || rename(temporary, state_path()) != 0) {
        unlink(temporary);
        return NVML_ERROR_UNKNOWN;
    }
    return NVML_SUCCESS;
}

nvmlReturn_t state_update(state_change change, const void *argument)
{
    char path[PATH_MAX], *document;
    struct json *state;
    nvmlReturn_t result;
    int lock;

    snprintf(path, sizeof(path), "%s.lock", state_path());
    lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (lock < 0)
        return NVML_ERROR_NO_PERMISSION;
    while (flock(lock, LOCK_EX) != 0 && errno == EINTR)
        ;
    state = state_read();
    result = state != NULL ? change(state, argument) : NVML_ERROR_UNKNOWN;
    if (result == NVML_SUCCESS) {
        document = json_print(state);
        result = document != NULL ? replace_state(document) : NVML_ERROR_MEMORY;
        free(document);
    }
    json_free(state);
    close(lock);
    return result;
}
