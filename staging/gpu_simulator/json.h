/* A small JSON reader and writer: a document becomes a tree, a tree becomes a document. */
#ifndef GPU_SIMULATOR_JSON_H
#define GPU_SIMULATOR_JSON_H

enum json_type { JSON_NULL, JSON_FALSE, JSON_TRUE, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

struct json {
    enum json_type type;
    char *key;           /* name of a member of an object, otherwise NULL */
    char *text;          /* a string's content in UTF-8; a number's digits as they were read */
    struct json *child;  /* first element or member */
    struct json *next;   /* next element or member of the same parent */
};

/* The tree of a complete document, NULL when it is not valid JSON or memory is short. */
struct json *json_parse(const char *document);
void json_free(struct json *tree);
/* The document of a tree, indented by two spaces, to be freed; NULL when memory is short. */
char *json_print(const struct json *tree);

/* The member called `key`; NULL where there is none, also when `object` is NULL or no object. */
struct json *json_member(const struct json *object, const char *key);
/* The element at `index`; NULL where there is none. */
struct json *json_element(const struct json *array, unsigned int index);
/* 1 and the value of a number, true or false; 0 for anything else. */
int json_number(const struct json *node, double *value);
/* The content of a string; NULL for anything else. */
const char *json_string(const struct json *node);
/* Makes an existing node a number with these digits; 0 when memory is short. */
int json_set_number(struct json *node, const char *digits);

#endif
