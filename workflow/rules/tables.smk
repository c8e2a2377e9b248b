# results/tables/{table}.csv, .md, .html and .curves.png, and results/gallery/: what an evaluation found, for the report


from facekiln.evaluation.published import published_files


rule make_accuracy_table:
    input:
        evaluations=checked(lambda wc: PLAN.evaluations_of(wc.table)),
        # Shown beside ours: a corrected figure makes the table again.
        published=published_files(),
    output:
        csv="results/tables/{table}.csv",
        md="results/tables/{table}.md",
        html=report(
            "results/tables/{table}.html",
            caption="../report/accuracy.rst",
            category="Accuracy",
            labels={"what": "table", "of": "{table}"},
        ),
    log:
        "logs/tables/{table}.log",
    wildcard_constraints:
        table=PLAN.tables(),
    localrule: True
    conda:
        ENVIRONMENT
    params:
        code=fingerprint("facekiln.evaluation.tables_text"),
        title=checked(lambda wc: PLAN.title_of(wc.table)),
    shell:
        "facekiln --log {log} table accuracy {input.evaluations} --title {params.title:q}"
        " --output results/tables/{wildcards.table}"


rule draw_curves:
    input:
        evaluations=checked(lambda wc: PLAN.evaluations_of(wc.table)),
        curves=checked(lambda wc: PLAN.evaluations_of(wc.table, ".curves.npz")),
    output:
        report(
            "results/tables/{table}.curves.png",
            caption="../report/curves.rst",
            category="Accuracy",
            labels={"what": "curves", "of": "{table}"},
        ),
    log:
        "logs/tables/{table}.curves.log",
    wildcard_constraints:
        table=PLAN.tables(),
    localrule: True
    conda:
        ENVIRONMENT
    params:
        code=fingerprint("facekiln.evaluation.curves"),
    shell:
        "facekiln --log {log} gallery curves {input.evaluations} --output {output}"


rule draw_gallery:
    input:
        "results/predictions/{backend}/{artifact}/{dataset}",
    output:
        report(
            "results/gallery/{kind}/{backend}/{artifact}/{dataset}.png",
            caption="../report/gallery.rst",
            category="Pictures",
            labels={
                "what": "{kind}",
                "of": "{artifact}",
                "by": "{backend}",
                "on": "{dataset}",
            },
        ),
    log:
        "logs/gallery/{kind}/{backend}/{artifact}/{dataset}.log",
    wildcard_constraints:
        kind="samples|misses",
        backend=r"[\w-]+",
        dataset=r"[\w@]+",
    conda:
        ENVIRONMENT
    params:
        code=fingerprint("facekiln.evaluation.gallery", "facekiln.data.declared"),
    shell:
        "facekiln --log {log} gallery {wildcards.kind} {input} --output {output}"


rule draw_shifts:
    input:
        child="results/predictions/{backend}/{artifact}/{dataset}",
        parent=checked(lambda wc: PLAN.float_predictions_of(wc.artifact, wc.dataset)),
    output:
        report(
            "results/gallery/shifts/{backend}/{artifact}/{dataset}.png",
            caption="../report/gallery.rst",
            category="Pictures",
            labels={
                "what": "shifts",
                "of": "{artifact}",
                "by": "{backend}",
                "on": "{dataset}",
            },
        ),
    log:
        "logs/gallery/shifts/{backend}/{artifact}/{dataset}.log",
    wildcard_constraints:
        backend=r"[\w-]+",
        dataset=r"[\w@]+",
    conda:
        ENVIRONMENT
    params:
        code=fingerprint("facekiln.evaluation.gallery", "facekiln.data.declared"),
    shell:
        "facekiln --log {log} gallery shifts {input.child} {input.parent} --output {output}"
